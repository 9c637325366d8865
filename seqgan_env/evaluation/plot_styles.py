"""Colours that the colour-blind can tell apart (Wong, 2011), and line styles that tell curves apart without them."""

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"

STYLES = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"))
"""Colour and line of the first curve, the second, and so on."""
