"""The kinds of defect, one entry each: what it means, what to do, and whether leaving rows out is honest.

A kind is *causal* when its findings up to a session need no bar after that session. Only rows of causal kinds
may be masked: a row left out because of what came later would choose the universe from the future. Some
causal kinds cannot be masked either, because the defect is a step between two levels: the step is still there
when the row that shows it has gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from barcast.core.config import nearest
from barcast.core.errors import UsageError
from barcast.core.texts import Text

Choice: TypeAlias = Literal["refuse", "mask", "accept"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of defect.

    Parameters
    ----------
    name : str
        As in `barcast.toml`, flags, findings and JSON.
    title, meaning, todo : Text
        A few words; what was measured and with which threshold; the next step and the reason of the default.
    causal : bool
        Whether findings up to a session need no later bar.
    in_row : bool
        Whether the defect lies within the named rows, so that leaving them out removes it. False for steps
        between levels and for whatever concerns a symbol or the panel as a whole.
    default : Choice
        The policy where nobody chose one.
    """

    name: str
    title: Text
    meaning: Text
    todo: Text
    causal: bool = True
    in_row: bool = True
    default: Choice = "accept"

    @property
    def allowed(self) -> tuple[Choice, ...]:
        """The policies that make sense for this kind."""
        return ("refuse", "accept") if self.no_mask_reason else CHOICES

    @property
    def no_mask_reason(self) -> str:
        """Why rows of this kind cannot be masked; empty where they can."""
        if not self.causal:
            return (
                "it is seen only with the help of later bars, so leaving its rows out would choose the "
                "universe from the future"
            )
        if not self.in_row:
            return "it does not lie in single rows: without the named row the defect is still there"
        return ""


def known_kind(name: str, where: str = "quality") -> Kind:
    """Return the kind called ``name``.

    Raises
    ------
    UsageError
        With the nearest known name.
    """
    if name in KINDS:
        return KINDS[name]
    raise UsageError(f"{where}: unknown kind of defect `{name}`", nearest(name, KINDS))


_ALL = (
    Kind(
        name="duplicate_conflict",
        title=Text("two versions of a bar", "同一根K线有两个版本"),
        meaning=Text(
            "the source had the same symbol and time more than once, with different prices",
            "来源中同一代码、同一时间出现多次，且价格不同",
        ),
        todo=Text(
            "keep one file of the two and import again; until then the bar is left out, since nothing says "
            "which version is right",
            "只保留其中一个文件后重新导入；在此之前该行不参与计算，因为无法判断哪个版本正确",
        ),
        default="mask",
    ),
    Kind(
        name="non_finite",
        title=Text("missing or infinite value", "缺失或无穷的数值"),
        meaning=Text(
            "a price or factor is null, NaN or infinite, a factor is not positive, or volume is infinite",
            "价格或复权因子为空、NaN 或无穷，因子不为正，或成交量为无穷",
        ),
        todo=Text("nothing can be computed from such a bar; it is left out", "这样的K线无法计算，不参与计算"),
        default="mask",
    ),
    Kind(
        name="close_only",
        title=Text("close without open, high and low", "只有收盘价"),
        meaning=Text("open, high and low are null, the close is there", "开盘、最高、最低为空，收盘价存在"),
        todo=Text("choose a close-only feature set for such symbols", "对这样的代码请选用只需收盘价的特征"),
    ),
    Kind(
        name="non_positive_price",
        title=Text("price of zero or below", "价格为零或负"),
        meaning=Text("open, high, low or close is at most 0", "开、高、低、收之一不大于 0"),
        todo=Text("such a bar has no return; it is left out", "这样的K线没有收益率，不参与计算"),
        default="mask",
    ),
    Kind(
        name="impossible_bar",
        title=Text("high below low", "最高价低于最低价"),
        meaning=Text("the high is below the low", "最高价低于最低价"),
        todo=Text(
            "nothing says which price is right; the bar is left out", "无法判断哪个价格正确，不参与计算"
        ),
        default="mask",
    ),
    Kind(
        name="close_outside_bar",
        title=Text("close outside the bar", "收盘价越出高低区间"),
        meaning=Text(
            "the close is above the high or below the low by more than one millionth",
            "收盘价高于最高价或低于最低价，超过百万分之一",
        ),
        todo=Text(
            "labels read the close, and this one contradicts its bar; it is left out",
            "标签读取收盘价，而它与本根K线矛盾，不参与计算",
        ),
        default="mask",
    ),
    Kind(
        name="open_outside_bar",
        title=Text("open outside the bar", "开盘价越出高低区间"),
        meaning=Text(
            "the open is above the high or below the low by more than one millionth",
            "开盘价高于最高价或低于最低价，超过百万分之一",
        ),
        todo=Text(
            "accepted: opening incidents are real and the close is sound; mask it where features of the open "
            "matter",
            "默认接受：开盘事故真实存在，收盘价仍可靠；若开盘价特征重要可选 mask",
        ),
    ),
    Kind(
        name="negative_volume",
        title=Text("negative volume", "成交量为负"),
        meaning=Text("volume is below 0", "成交量小于 0"),
        todo=Text("the row is corrupt; it is left out", "该行已损坏，不参与计算"),
        default="mask",
    ),
    Kind(
        name="zero_volume",
        title=Text("zero volume", "成交量为零"),
        meaning=Text(
            "nothing was traded, so the prices are quotes or copies", "没有成交，价格只是报价或复制"
        ),
        todo=Text(
            "accepted: labels mark such a session as not tradable, and scores are given with and without it",
            "默认接受：标签会把该时段标为不可交易，评分会给出包含与不包含两种结果",
        ),
    ),
    Kind(
        name="repeated_bar",
        title=Text("copy of the bar before", "与前一根K线完全相同"),
        meaning=Text(
            "four prices that are not all equal, and a volume above 0, are those of the row before",
            "四个不全相同的价格与非零成交量都和前一行相同",
        ),
        todo=Text(
            "most are copies made by the source: compare with another source; mask leaves them out",
            "多为来源误复制：请与另一来源比较；可选 mask 不参与计算",
        ),
    ),
    Kind(
        name="off_calendar",
        title=Text("no session at this time", "不在交易日历上"),
        meaning=Text("the bar's time is not on the store's calendar", "该时间不在数据仓库的交易日历上"),
        todo=Text(
            "check that the calendar is the right one; bars of other days are left out, since horizons count "
            "sessions",
            "请确认交易日历是否正确；因为预测期按交易日计数，其他日期的行不参与计算",
        ),
        default="mask",
    ),
    Kind(
        name="future_date",
        title=Text("bar from the future", "来自未来的K线"),
        meaning=Text("the time is more than 26 hours later than now", "时间比现在晚 26 小时以上"),
        todo=Text(
            "refused: a date to come means that dates were misread (day and month, or the unit of an epoch), "
            "so past ones may be wrong too; mend the file, or mask if it is a single typing error",
            "默认拒绝：出现未来日期说明日期解析有误（日月颠倒或时间戳单位不对），过去的日期也可能错；"
            "请修正文件，若只是个别笔误可选 mask",
        ),
        default="refuse",
    ),
    Kind(
        name="extreme_return",
        title=Text("extreme return", "极端收益"),
        meaning=Text(
            "the adjusted close moved by |log| > 0.4 since the row before (0.1 for bars within a day)",
            "复权收盘价相对前一行的对数变动绝对值大于 0.4（日内K线为 0.1）",
        ),
        todo=Text(
            "accepted: most are real crashes and jumps; masking leaves out exactly the days that hurt, so "
            "read scores with care",
            "默认接受：多数是真实暴涨暴跌；若 mask，恰好去掉最痛的日子，评分需谨慎解读",
        ),
    ),
    Kind(
        name="split_like_jump",
        title=Text("jump by a simple fraction", "像拆并股的跳变"),
        meaning=Text(
            "the close as given moved within 3 % of n/1 or 1/n (n = 2..10, 12, 15, 20, ... 100) and the "
            "factor did not step",
            "未复权收盘价的比值在 n/1 或 1/n（n = 2..10、12、15、20…100）的 3 % 以内，而复权因子没有变动",
        ),
        todo=Text(
            "a hint only: real crashes to a half or a third are among them; `missed_factor` is the sure part",
            "仅为提示：其中有真实的腰斩；`missed_factor` 才是较确定的部分",
        ),
        in_row=False,
    ),
    Kind(
        name="missed_factor",
        title=Text("level step without a factor", "缺少复权因子的价位台阶"),
        meaning=Text(
            "the close as given moved by |log| > 0.3, three quarters of it before the open, the day's range "
            "is below 15 % of it, it dwarfs the moves of the last 60 bars, volume or turnover is below 5 "
            "times the usual, the price is at least 1 for shares, and the factor did not step",
            "未复权收盘价对数变动绝对值大于 0.3，四分之三在开盘前完成，当日振幅不到其 15 %，远大于最近 60 "
            "根K线的变动，成交量或成交额不到平时的 5 倍，股价不低于 1，且复权因子没有变动",
        ),
        todo=Text(
            "a split or spin-off that the source missed, a wrong unit, or another security under this "
            "symbol: mend the factor at the source and update, or leave the symbol out",
            "来源漏记的拆股、分立，单位错误，或代码下换了证券：请修正因子后更新，或不使用该代码",
        ),
        in_row=False,
    ),
    Kind(
        name="unmatched_factor",
        title=Text("factor that the price does not follow", "价格没有跟随的复权因子"),
        meaning=Text(
            "the total factor stepped by |log| > 0.1, and neither the open nor the close took up half of it",
            "总复权因子对数变动绝对值大于 0.1，而开盘价与收盘价都没有反映其一半",
        ),
        todo=Text(
            "often the factor is dated a day or more too early or too late, or belongs to another security: "
            "mend the date at the source and update",
            "常见原因是除权日期早或晚了一天以上，或属于另一只证券：请修正日期后更新",
        ),
        in_row=False,
    ),
    Kind(
        name="large_distribution",
        title=Text("very large distribution", "特大分配"),
        meaning=Text(
            "the factor stepped by |log| > 0.3 beyond any split: a dividend or spin-off of a quarter of the "
            "price or more",
            "除拆股外复权因子对数变动绝对值大于 0.3：相当于股价四分之一以上的分红或分立",
        ),
        todo=Text(
            "accepted: most are real spin-offs; compare a few with the company's announcements",
            "默认接受：多为真实分立；请抽查公司公告",
        ),
        in_row=False,
    ),
    Kind(
        name="beyond_limit",
        title=Text("move beyond the price limit", "超出涨跌停限制"),
        meaning=Text(
            "China, daily: the adjusted close moved more than the board's limit (10 %, 20 %, 30 %) with room "
            "for rounding, outside the first five rows of a listing and the return from a long hole",
            "A股日线：复权收盘价变动超过板块涨跌幅限制（10 %、20 %、30 %，已留舍入余地），"
            "上市前五行与长期停牌复牌除外",
        ),
        todo=Text(
            "several on one day are an anchor that moved: download whole histories again; single ones are "
            "mostly relistings",
            "同日多只说明复权锚点变动：请重新下载完整历史；个别的多为重新上市",
        ),
        in_row=False,
    ),
    Kind(
        name="spike",
        title=Text("spike", "尖刺"),
        meaning=Text(
            "a step like `missed_factor` (whatever was traded) that is undone within 5 bars",
            "与 `missed_factor` 相同的台阶（不论成交量），5 根K线内恢复",
        ),
        todo=Text(
            "mostly one day in another unit: mend it at the source; it cannot be masked, since it shows only "
            "when the price is back",
            "多为某一天单位写错：请在来源修正；因为恢复之后才能看出，不能 mask",
        ),
        causal=False,
    ),
    Kind(
        name="two_securities",
        title=Text("two price levels under one symbol", "一个代码两个价位"),
        meaning=Text(
            "the price switched between two levels at least three times, each time quietly as in "
            "`missed_factor`",
            "价格在两个价位之间至少切换三次，每次都像 `missed_factor` 那样没有交易痕迹",
        ),
        todo=Text(
            "two securities share the symbol, or the unit goes to and fro: leave the symbol out, or mend it",
            "两只证券共用代码，或单位来回变化：请不使用该代码或修正来源",
        ),
        causal=False,
    ),
    Kind(
        name="identical_symbols",
        title=Text("same bars under two symbols", "两个代码的K线相同"),
        meaning=Text(
            "at least 20 bars that moved have the time, prices and volume of another symbol's; the value "
            "counts them",
            "至少 20 根有波动的K线与另一代码的时间、价格、成交量完全相同；数值为其根数",
        ),
        todo=Text(
            "one security under two names, or a file saved twice: keep one of the two symbols, since a model "
            "would learn and be scored on the same rows twice",
            "同一证券的两个代码，或同一文件保存了两次：请只保留一个代码，否则同样的行会被重复学习和重复评分",
        ),
        causal=False,
        in_row=False,
    ),
    Kind(
        name="stitched_anchor",
        title=Text("stitched anchor", "复权锚点拼接"),
        meaning=Text(
            "adjusted close over traded close fell by more than 0.2 % plus rounding; forward adjustment can "
            "only raise it",
            "复权收盘价与实际收盘价之比下降超过 0.2 % 加舍入误差；前复权因子只会上升",
        ),
        todo=Text(
            "rows of two downloads were put together: download the whole history again and update; rows "
            "before the date stay comparable among themselves",
            "两次下载的数据被拼在一起：请重新下载完整历史后更新；该日期之前的各行之间仍可比",
        ),
        in_row=False,
    ),
    Kind(
        name="adjusted_above_raw",
        title=Text("adjusted above traded", "前复权价高于实际价"),
        meaning=Text(
            "the forward-adjusted close is above the traded one by more than 0.05 %",
            "前复权收盘价高于实际收盘价 0.05 % 以上",
        ),
        todo=Text(
            "accepted: returns within the stretch are right, its ends are not (see `stitched_anchor`)",
            "默认接受：该段内部的收益率正确，两端不正确（见 `stitched_anchor`）",
        ),
    ),
    Kind(
        name="factor_noise",
        title=Text("rounding noise after adjustment", "复权后的舍入噪声"),
        meaning=Text(
            "adjusted over traded close fell by more than 0.5 %, which two decimals at this price explain",
            "复权价与实际价之比下降超过 0.5 %，在该价位两位小数的舍入可以解释",
        ),
        todo=Text(
            "accepted: returns of this symbol carry noise of that size; import traded prices with factors "
            "where you can",
            "默认接受：该代码的收益率带有同样大小的噪声；条件允许时请导入不复权价格与因子",
        ),
    ),
    Kind(
        name="hole",
        title=Text("hole", "缺口"),
        meaning=Text("1 to 20 sessions without a bar inside a symbol's life", "存续期内缺 1 至 20 个交易日"),
        todo=Text(
            "accepted: windows count the symbol's own bars, nothing is filled in",
            "默认接受：窗口按自身K线计数，不填补",
        ),
        in_row=False,
    ),
    Kind(
        name="long_hole",
        title=Text("hole of more than 20 sessions", "超过 20 个交易日的缺口"),
        meaning=Text(
            "more than 20 sessions without a bar inside a symbol's life", "存续期内缺超过 20 个交易日"
        ),
        todo=Text("accepted: warm-ups and windows start anew after it", "默认接受：其后重新预热并重新开窗"),
        in_row=False,
    ),
    Kind(
        name="thin_session",
        title=Text("thin session", "行数偏少的交易日"),
        meaning=Text(
            "fewer than 90 % of the bars that the median of the 20 sessions before had",
            "行数少于前 20 个交易日中位数的 90 %",
        ),
        todo=Text(
            "the source lost rows of that day: import the day again; session statistics suffer",
            "来源丢失了当天的部分数据：请重新导入；会影响截面统计",
        ),
        in_row=False,
    ),
    Kind(
        name="stale_symbol",
        title=Text("stale symbol", "价格停滞的代码"),
        meaning=Text("the return is exactly 0 on more than half of the bars", "一半以上K线的收益率恰为 0"),
        todo=Text(
            "accepted: it trades too seldom to be forecast from prices; leave it out by a liquidity rule, "
            "which looks at the past only",
            "默认接受：成交太少，难以由价格预测；请用只看过去的流动性规则排除",
        ),
        causal=False,
        in_row=False,
    ),
    Kind(
        name="ended_symbol",
        title=Text("symbol that ends early", "提前结束的代码"),
        meaning=Text(
            "its last bar is before the panel's last session; the value counts the sessions since",
            "最后一根K线早于面板的最后交易日；数值为其后的交易日数",
        ),
        todo=Text(
            "accepted: delisted, suspended, or left behind by an update; the status table tells which",
            "默认接受：退市、停牌，或更新时遗漏；可用状态表区分",
        ),
        causal=False,
        in_row=False,
    ),
    Kind(
        name="no_delisted_symbol",
        title=Text("survivors only", "只有存活者"),
        meaning=Text(
            "over a year or more hardly any symbol ends before the panel does (none, or below 0.2 % a year "
            "in a panel of 500 or more)",
            "一年以上的数据中几乎没有代码提前结束（没有，或在 500 只以上的面板中每年不到 0.2 %）",
        ),
        todo=Text(
            "accepted, and stamped on every score: who was chosen was known only at the end",
            "默认接受，并标注在每个评分上：入选名单在期末才知道",
        ),
        causal=False,
        in_row=False,
    ),
    Kind(
        name="no_factors",
        title=Text("traded prices without factors", "不复权价格且无复权因子"),
        meaning=Text(
            "prices are as traded, the data covers a year or more, and every factor is 1",
            "价格为不复权，数据超过一年，而所有因子都为 1",
        ),
        todo=Text(
            "splits and dividends show as false returns: import `adj_close` or `factor` too",
            "拆股与分红会表现为虚假收益：请同时导入 `adj_close` 或 `factor`",
        ),
        causal=False,
        in_row=False,
    ),
)

#: Every kind by name, in the order of reports.
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
