"""Who may connect, and which messages they may send: roles (pure), key files, and the allow-list.

The ZeroMQ part (CURVE, the authenticator) is in `beamtide.pump`.
"""
