"""Who may talk to us, and what they may say: roles (pure), key files, and the allow-list.

ZeroMQ's side of it (CURVE, the authenticator) is in `beamtide.pump`.
"""
