"""Colours that are safe for colour-blind readers (Wong, 2011), and line styles that work without colour."""

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"

STYLES = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"))
"""Colour and line style of the first curve, the second, and so on."""
