"""A server of the Wyoming protocol, as Home Assistant speaks it: events of JSON and audio over TCP.

A request is spoken piece by piece, and a single thread makes the pieces of all connections in turn, so
that a long text does not keep a short one waiting. A connection speaks one request after another.
The protocol knows no tokens.
"""
