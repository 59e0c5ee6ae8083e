"""A deterministic world around the whole gateway: `World(seed)` in `world.py`.

Clients, upstreams, the network between them and everything that goes wrong are drawn from one seed.
Between a client's bytes and an upstream's bytes is the real stack: Hypercorn's connection under our
loop, Quart, the pipeline, httpx and our connections. Time is virtual; the scheduler is seeded.

    uv run python tests/simulate.py 137            # replay one seed, with its trace
    uv run python tests/simulate.py --worlds 20000 # look for new ones
"""
