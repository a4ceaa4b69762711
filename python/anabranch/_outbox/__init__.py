"""The outbox: its stores, what claims and acks, its command, and what is shown of it.

What is public of it is in `anabranch.outbox`, `anabranch.router` and `anabranch.worker`.
"""
