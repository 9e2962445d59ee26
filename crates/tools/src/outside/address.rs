//! Which addresses belong to the public internet. Knows addresses, not names and not what listens there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses: the first, the bits that count, and what it is for.
type Block<A> = (A, u32, &'static str);

/// What of IPv4 is not the public internet (IANA's registry of special-purpose addresses), and one public address that
/// only a cloud's own machines can reach.
const V4: [Block<Ipv4Addr>; 19] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "of this machine"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "of a provider's own network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "of this machine"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "of a cloud's own services"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local, where clouds keep credentials"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "reserved for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "reserved for name servers"),
    (Ipv4Addr::new(192, 52, 193, 0), 24, "reserved for multicast relays"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "of a relay to IPv6"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(192, 175, 48, 0), 24, "reserved for name servers"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for measurements"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// The one block of IPv6 that is given out for the public internet; all else is refused without being named.
const V6_PUBLIC: Block<Ipv6Addr> = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, "public");

/// What within [`V6_PUBLIC`] is not the public internet after all. 2002::/16 and Teredo carry an IPv4 address within
/// them that a relay connects to.
const V6: [Block<Ipv6Addr>; 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "reserved for protocols"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "for documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "of a relay to IPv4"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "for documentation"),
];

/// What an address is instead of one of the public internet; `None` for one that is.
pub fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => V4.iter().find(|block| holds_v4(block, address)).map(|(_, _, what)| *what),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(within) = address.to_ipv4_mapped() {
        return refusal(within.into()).or(Some("an IPv4 address written as IPv6"));
    }
    if !holds_v6(&V6_PUBLIC, address) {
        return Some(match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => "of this machine",
            [0x64, 0xff9b, ..] => "of a relay to IPv4",
            [first, ..] if first & 0xfe00 == 0xfc00 => "private",
            [first, ..] if first & 0xffc0 == 0xfe80 => "link-local",
            [first, ..] if first & 0xff00 == 0xff00 => "multicast",
            _ => "reserved",
        });
    }
    V6.iter().find(|block| holds_v6(block, address)).map(|(_, _, what)| *what)
}

fn holds_v4((first, bits, _): &Block<Ipv4Addr>, address: Ipv4Addr) -> bool {
    (first.to_bits() ^ address.to_bits()) >> (32 - bits) == 0
}

fn holds_v6((first, bits, _): &Block<Ipv6Addr>, address: Ipv6Addr) -> bool {
    (first.to_bits() ^ address.to_bits()) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_passes() {
        for (address, is_public) in [
            ("93.184.215.14", true),
            ("1.1.1.1", true),
            ("172.15.255.255", true),
            ("172.32.0.0", true),
            ("100.63.255.255", true),
            ("100.128.0.0", true),
            ("198.17.255.255", true),
            ("198.20.0.0", true),
            ("223.255.255.255", true),
            ("2606:4700:4700::1111", true),
            ("2a00:1450:4001:82a::200e", true),
            ("2001:200::1", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.255.255.255", false),
            ("100.64.0.0", false),
            ("100.100.100.200", false),
            ("100.127.255.255", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("168.63.129.16", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.192", false),
            ("192.0.2.1", false),
            ("192.88.99.1", false),
            ("192.168.0.1", false),
            ("198.18.0.1", false),
            ("198.19.255.255", false),
            ("198.51.100.1", false),
            ("203.0.113.9", false),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:93.184.215.14", false),
            ("::ffff:0:7f00:1", false),
            ("64:ff9b::7f00:1", false),
            ("64:ff9b:1::7f00:1", false),
            ("100::1", false),
            ("2001::1", false),
            ("2001:0:7f00:1::", false),
            ("2001:db8::1", false),
            ("2002:7f00:1::", false),
            ("3fff::1", false),
            ("4000::1", false),
            ("5f00::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(refusal(address.parse().unwrap()).is_none(), is_public, "{address}");
        }
    }
}
