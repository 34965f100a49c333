"""Why a device idles and why a loss misbehaves: verdicts, each with its numbers, its test and what to do."""
