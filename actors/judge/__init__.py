"""The reader of joints and looks, and what is measured with it."""
