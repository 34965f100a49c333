"""The command line: ``barcast COMMAND``. Help must appear at once, so nothing heavy is imported here."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from barcast.cli.copied import translate
from barcast.core.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, BarcastError, ResourceError
from barcast.core.interruption import Interrupted

app = typer.Typer(
    name="barcast",
    help="Train, compare and serve price-forecasting models for a whole market on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `barcast quickstart`. Exit codes: 0 fine, 2 usage, 3 data, 4 store, 5 run, 6 disk or "
    "memory, 7 leak found, 70 a bug of ours, 75 another retrain is at work, 130 Ctrl-C, "
    "143 SIGTERM.",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of any error.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"barcast {installed('barcast')}")
        raise typer.Exit


def _assemble() -> None:
    """Hang every command into the app; each file is thin and imports its room only when it runs."""
    from barcast.cli import (
        adapt,
        audit,
        champion,
        check,
        compare,
        data,
        doctor,
        embeddings,
        facts,
        features,
        fleet,
        plan,
        predict,
        quickstart,
        report,
        retrain,
        route,
        runs,
        train,
        tune,
    )

    app.command("quickstart")(quickstart.quickstart)
    data.app.command("check")(check.check)
    data.app.command("facts")(facts.facts)
    app.add_typer(data.app, name="data")
    app.add_typer(features.app, name="features")
    app.command("train")(train.train)
    app.add_typer(plan.app, name="plan")
    app.add_typer(fleet.app, name="fleet")
    app.command("tune")(tune.tune)
    app.command("compare")(compare.compare)
    app.command("predict")(predict.predict)
    app.command("promote")(champion.promote)
    app.command("rollback")(champion.rollback)
    app.command("retrain")(retrain.retrain)
    app.command("route")(route.route)
    app.command("report")(report.report)
    app.command("audit")(audit.audit)
    app.command("embeddings")(embeddings.embeddings)
    app.command("adapt")(adapt.adapt)
    app.command("runs")(runs.runs)
    app.command("doctor")(doctor.doctor)


_assemble()


#: What a wrong flag raises: click's base class, which newer typers carry inside themselves.
_COMMAND_LINE_ERROR: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


_INTERRUPTED = "interrupted; the same command goes on where it stopped"
#: Codes from here on say which signal ended a command.
_SIGNALLED = 128


def main() -> None:
    """Run a command and turn whatever happens into an exit code and a message that helps."""
    # Before any library starts its threads: waiting threads that sleep instead of spinning cost nothing on an
    # idle machine, and on a busy one they are the difference between slower and standing still.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in sys.argv
    arguments, notices = translate([argument for argument in sys.argv[1:] if argument != "--debug"])
    sys.argv[1:] = arguments  # what a run records as its command
    for notice in notices:
        typer.echo(notice, err=True)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # started by torchrun
        from barcast.training.distributed import in_team

        sys.exit(in_team(lambda: _run(arguments, debug), lambda helping: _explained(helping, debug)))
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    return _explained(lambda: app(args=arguments, standalone_mode=False), debug)


def _explained(command: Callable[[], Any], debug: bool) -> int:
    try:
        code = command()
    except BarcastError as error:
        return _explain(str(error), error.exit_code, debug)
    except _COMMAND_LINE_ERROR as error:
        error.show()
        return int(error.exit_code)
    except Interrupted as interruption:
        resume = f": {interruption.resume}" if interruption.resume else ""
        return _explain(_INTERRUPTED + resume, interruption.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        return _explain(_INTERRUPTED, EXIT_INTERRUPTED, debug)
    except BrokenPipeError:
        return 0
    except MemoryError as error:
        refused = ResourceError(f"out of memory: {error}", "close something, or use --limit; barcast doctor")
        return _explain(str(refused), refused.exit_code, debug)
    except OSError as error:
        refused = ResourceError(f"the system refused: {error}", "check the path, the disk and permissions")
        return _explain(str(refused), refused.exit_code, debug)
    except Exception as error:
        if _is_short_of_memory(error):  # not where it was foreseen
            refused = ResourceError("out of memory", "a smaller network or --limit; barcast doctor")
            return _explain(str(refused), refused.exit_code, debug)
        # a bug: say so, with what a report needs
        if not debug:
            typer.echo(f"bug in barcast: {type(error).__name__}: {error}", err=True)
            typer.echo("run the same command with --debug and report what it prints", err=True)
            return EXIT_INTERNAL
        traceback.print_exc()
        return EXIT_INTERNAL
    if code == EXIT_INTERRUPTED:  # how newer typers report Ctrl-C
        return _explain(_INTERRUPTED, EXIT_INTERRUPTED, debug)
    return int(code or 0)


def _is_short_of_memory(error: Exception) -> bool:
    """Return whether torch says so, which has no error of its own for it on a CPU."""
    from barcast.training.memory import is_out_of_memory

    return isinstance(error, RuntimeError) and is_out_of_memory(error)


def _explain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo(f"error: {message}" if code < _SIGNALLED else message, err=True)
    return code
