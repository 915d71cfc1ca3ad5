"""NOTIFICATION messages in words: what a code and a subcode mean (RFC 4271, 4486, 6608, 8203, 8538, 9384)."""

from bgp.types import Notification

CEASE = 6

CODES = {
    1: "Message Header Error",
    2: "OPEN Message Error",
    3: "UPDATE Message Error",
    4: "Hold Timer Expired",
    5: "Finite State Machine Error",
    CEASE: "Cease",
    7: "ROUTE-REFRESH Message Error",  # RFC 7313
}

SUBCODES = {
    (1, 1): "Connection Not Synchronized",
    (1, 2): "Bad Message Length",
    (1, 3): "Bad Message Type",
    (2, 1): "Unsupported Version Number",
    (2, 2): "Bad Peer AS",
    (2, 3): "Bad BGP Identifier",
    (2, 4): "Unsupported Optional Parameter",
    (2, 5): "Authentication Failure",  # deprecated by RFC 4271
    (2, 6): "Unacceptable Hold Time",
    (2, 7): "Unsupported Capability",  # RFC 5492
    (2, 11): "Role Mismatch",  # RFC 9234
    (3, 1): "Malformed Attribute List",
    (3, 2): "Unrecognized Well-known Attribute",
    (3, 3): "Missing Well-known Attribute",
    (3, 4): "Attribute Flags Error",
    (3, 5): "Attribute Length Error",
    (3, 6): "Invalid ORIGIN Attribute",
    (3, 7): "AS Routing Loop",  # deprecated by RFC 4271
    (3, 8): "Invalid NEXT_HOP Attribute",
    (3, 9): "Optional Attribute Error",
    (3, 10): "Invalid Network Field",
    (3, 11): "Malformed AS_PATH",
    # RFC 6608
    (5, 1): "Receive Unexpected Message in OpenSent State",
    (5, 2): "Receive Unexpected Message in OpenConfirm State",
    (5, 3): "Receive Unexpected Message in Established State",
    # RFC 4486, and 8203 for the texts that may come with 2 and 4
    (6, 1): "Maximum Number of Prefixes Reached",
    (6, 2): "Administrative Shutdown",
    (6, 3): "Peer De-configured",
    (6, 4): "Administrative Reset",
    (6, 5): "Connection Rejected",
    (6, 6): "Other Configuration Change",
    (6, 7): "Connection Collision Resolution",
    (6, 8): "Out of Resources",
    (6, 9): "Hard Reset",  # RFC 8538
    (6, 10): "BFD Down",  # RFC 9384
    (7, 1): "Invalid Message Length",
}


def words(notification: Notification) -> str:
    """Say what a NOTIFICATION means, as `Cease: Administrative Shutdown: "maintenance"`."""
    code, subcode = notification.code, notification.subcode
    parts = [CODES.get(code, f"error {code}")]
    if subcode:
        parts.append(SUBCODES.get((code, subcode), f"subcode {subcode}"))
    if notification.text:
        parts.append(f'"{notification.text}"')
    return ": ".join(parts)
