"""Floor 7: what people write code with: app, functions, context, worker, handle, retries."""
