"""The look of a drawing, as one style sheet: quiet boxes, dark text, one strong colour for what is active."""

from __future__ import annotations

from statewright.adapters.svg.text import FONTS

_LIGHT = {
    "paper": "#ffffff", "box": "#f6f8fa", "leaf": "#ffffff", "line": "#57606a", "faint": "#afb8c1", "text": "#1f2328",
    "muted": "#57606a", "event": "#0b4f9e", "lit": "#fff4cc", "glow": "#bf8700", "taken": "#0b4f9e",
    "good": "#1a7f37", "bad": "#cf222e",
}  # fmt: skip
_DARK = {
    "paper": "#0d1117", "box": "#161b22", "leaf": "#1c2128", "line": "#9198a1", "faint": "#484f58", "text": "#e6edf3",
    "muted": "#9ea7b1", "event": "#79b8ff", "lit": "#4d3a00", "glow": "#e3b341", "taken": "#79b8ff",
    "good": "#3fb950", "bad": "#f85149",
}  # fmt: skip

_RULES = """
text{{font-family:{fonts};font-size:11px;fill:{muted}}}
.title{{font-size:13px;font-weight:bold;fill:{text}}}
.event{{fill:{event}}}
.mark{{font-weight:bold;text-anchor:middle;fill:{text}}}
.box{{fill:{leaf};stroke:{line};stroke-width:1.2}}
.chart>.box{{fill:{paper};stroke:{faint}}}
.compound>.box,.parallel>.box{{fill:{box}}}
.region>.box{{stroke:{faint}}}
.bar{{stroke:{faint};fill:none}}
.inner{{fill:none;stroke:{line};stroke-width:1.2}}
.ring,.history>circle{{fill:none;stroke:{line};stroke-width:1.2}}
.dot,circle.initial{{fill:{line}}}
.heading>text{{paint-order:stroke;stroke:{box};stroke-width:4px;stroke-linejoin:round}}
.heading[data-heading=""]>text{{stroke:{paper}}}
.stacked>.region>.box{{stroke:{line};stroke-dasharray:6 4}}
.separator{{stroke:{line};stroke-dasharray:6 4;fill:none}}
.transition>path,.initial>path{{fill:none;stroke:{line};stroke-width:1.2}}
.head path{{fill:{line}}}
.taken>path{{stroke:{taken};stroke-width:2.4}}
.taken>.event{{font-weight:bold}}
.head-taken path{{fill:{taken}}}
.unvisited>.box,.unvisited>.inner{{stroke:{faint}}}
.active>.box{{stroke:{glow};stroke-width:2.4}}
.atomic.active>.box,.final.active>.box{{fill:{lit}}}
.completed>.box{{stroke:{good}}}
.failed>.box,.cancelled>.box{{stroke:{bad}}}
"""


def _sheet(colours: dict[str, str]) -> str:
    return "".join(_RULES.format(fonts=FONTS, **colours).split("\n"))


STYLE = f"{_sheet(_LIGHT)}@media (prefers-color-scheme:dark){{{_sheet(_DARK)}}}"
