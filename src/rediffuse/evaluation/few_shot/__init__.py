"""Does augmentation help where photos are few? Arms against each other on equal terms."""
