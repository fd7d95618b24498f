"""Many variants from many images: planned, priced, made in shards, committed. No numerics of its own."""
