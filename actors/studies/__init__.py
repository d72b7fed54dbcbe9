"""What is shown with the small base: the demo, the ablation, pages of what it knows."""
