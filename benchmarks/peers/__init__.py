"""Who is measured, one library a file; each function makes a limiter as that library's users do.

Those that never refuse get a limit of a million a second.
"""
