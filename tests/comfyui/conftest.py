"""The fixtures are in comfy_session.py, which tests/canvas shares."""

collect_ignore = ["bench_nodes"]
