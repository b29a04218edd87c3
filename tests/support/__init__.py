"""What tests share: real services as processes, raw HTTP, waiting for conditions."""
