"""NATS: the doors through which events come in and facts go out, and the client and server that go with them.

In call order: `server` (the embedded nats-server), `endpoint` (how an owner is found), `connection` (heals itself),
`envelope` and `replies` (bytes to requests, answers to bytes; pure), `requests` (request doors), `pulls` and `inbound`
(JetStream and foreign subjects), `history` (facts out), `performers` (emit and call), `doors` (all of it opened).
"""
