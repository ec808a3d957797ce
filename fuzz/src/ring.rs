//! Rings, unpacked.

use onespace_stores::swift::ring::Ring;

/// A ring, as the file unpacks: a packed one would be refused for its checksum at almost every change. A ring that is
/// accepted places every partition on at least one device that it has, and on none twice.
pub fn run(input: &[u8]) {
    let Ok(ring) = Ring::parse_unpacked(input.to_vec()) else {
        return;
    };
    let partitions = 1_u64 << ring.part_power();
    assert!(partitions <= input.len() as u64, "every partition takes a byte");
    let most = ring.replica_count().ceil();
    for partition in 0..partitions.min(64) {
        let partition = u32::try_from(partition).unwrap_or_default();
        let primaries = ring.primaries(partition);
        assert!(!primaries.is_empty(), "partition {partition} is nowhere");
        assert!(primaries.len() as f64 <= most, "more primaries than replicas");
        for (at, device) in primaries.iter().enumerate() {
            assert!(ring.devices().any(|other| other == *device));
            assert!(!primaries[..at].contains(device), "a device is there twice");
        }
        assert_eq!(primaries, ring.primaries(partition), "the same answer twice");
    }
    let behind = u32::try_from(partitions).unwrap_or(u32::MAX);
    assert!(u64::from(behind) < partitions || ring.primaries(behind).is_empty());
}
