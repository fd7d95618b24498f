"""All yardsticks of a suite, one after another, on one set of images."""
