"""Jobs of task queues, held to limits: they start when they may, and wait in their queue until then."""
