"""What the inference service takes and answers, a file for each noun."""
