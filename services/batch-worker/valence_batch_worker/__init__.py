"""The batch worker: claims chunks, scores them, stores results, sweeps what others dropped."""
