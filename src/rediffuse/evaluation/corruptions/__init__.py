"""How much of a classifier's accuracy is left when pictures are noisy, blurred, snowed on or badly stored."""
