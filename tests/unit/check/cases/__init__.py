"""Hand-made states and steps, each pair of which differs in one property: false here, true there."""
