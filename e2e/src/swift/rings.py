"""Makes rings with Swift's own builder. Standard input: JSON, a list of
{"path", "partPower", "replicas", "version", "devices": [{"ip", "port", "device", "region", "zone", "weight"}], "remove": [device]}.
"""
import json
import logging
import sys

from swift.common.ring import RingBuilder

logging.disable(logging.CRITICAL)

for ring in json.load(sys.stdin):
    builder = RingBuilder(ring["partPower"], ring["replicas"], 0)
    ids = {}
    for device in ring["devices"]:
        ids[device["device"]] = builder.add_dev(
            {**device, "replication_ip": device["ip"], "replication_port": device["port"], "meta": ""}
        )
    # The same seed gives the same ring.
    builder.rebalance(seed="onespace")
    for device in ring.get("remove", []):
        builder.remove_dev(ids[device])
        builder.pretend_min_part_hours_passed()
        builder.rebalance(seed="onespace")
    builder.get_ring().save(ring["path"], format_version=ring.get("version", 1))
