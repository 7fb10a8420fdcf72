"""A small SVG writer: the same drawing gives the same bytes on every machine."""

from __future__ import annotations

from html import escape

INK, MUTED, PAPER = "#1f2430", "#6b7280", "#ffffff"
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


class Drawing:
    """Collects shapes; `text()` is the finished file."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' "
            f"height='{height}' role='img' {FONT}>",
            f"<title>{escape(title)}</title>",
            "<defs><marker id='head' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' "
            f"orient='auto'><path d='M0 0 L8 4 L0 8 z' fill='{MUTED}'/></marker></defs>",
            f"<rect width='{width}' height='{height}' rx='10' fill='{PAPER}'/>",
        ]

    def box(self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> None:
        """A rounded rectangle."""
        self.parts.append(
            f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='6' fill='{fill}' stroke='{stroke}'/>"
        )

    def write(
        self, x: float, y: float, text: str, *, size: int = 14, anchor: str = "middle", bold: bool = False,
        colour: str = INK,
    ) -> None:  # fmt: skip
        """One line of text; `y` is its baseline."""
        weight = " font-weight='600'" if bold else ""
        self.parts.append(
            f"<text x='{x:g}' y='{y:g}' font-size='{size}' text-anchor='{anchor}' fill='{colour}'{weight}>"
            f"{escape(text)}</text>"
        )

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points that ends in an arrow head."""
        path = " ".join(f"{'ML'[index > 0]}{x:g} {y:g}" for index, (x, y) in enumerate(points))
        self.parts.append(f"<path d='{path}' fill='none' stroke='{MUTED}' stroke-width='1.6' marker-end='url(#head)'/>")

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = MUTED, dash: str = "") -> None:
        """A straight line, dashed on request."""
        dashed = f" stroke-dasharray='{dash}'" if dash else ""
        self.parts.append(f"<path d='M{x1:g} {y1:g} L{x2:g} {y2:g}' stroke='{colour}' stroke-width='1.2'{dashed}/>")

    def text(self) -> str:
        """The file."""
        return "\n".join([*self.parts, "</svg>"]) + "\n"
