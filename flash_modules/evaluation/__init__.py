"""Is a video good? Knows no paper and no host."""
