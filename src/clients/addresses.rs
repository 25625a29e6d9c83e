//! Addresses and networks as several clients' libraries read them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The network of an address, with or without host bits, if the prefix is one of its family.
pub fn network(address: IpAddr, prefix: u32) -> Option<IpNet> {
    IpNet::new(address, prefix.try_into().ok()?).ok()
}

/// A number of decimal digits and nothing else.
pub fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// inet_aton of the C library: one to four numbers, decimal, octal or hexadecimal, of which the last one
/// fills the rest of the address; what stands behind white space does not count.
pub fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let text = text.split([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']).next()?;
    let parts: Vec<u32> = text.split('.').map(c_number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let free = 32 - 8 * u32::try_from(leading.len()).ok()?;
    if free < 32 && *last >> free != 0 {
        return None;
    }
    let leading = leading.iter().zip([24, 16, 8]).fold(0, |bits, (part, shift)| bits | part << shift);
    Some(Ipv4Addr::from_bits(leading | last))
}

fn c_number(text: &str) -> Option<u32> {
    let (digits, radix) = if let Some(hex) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        (hex, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (&text[1..], 8)
    } else {
        (text, 10)
    };
    // `from_str_radix` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, radix).ok())?
}

/// An IPv6 address as inet_ntop of the C library writes it: one with an IPv4 address in it has a dotted end.
pub fn inet_ntop(address: Ipv6Addr) -> String {
    let pieces = address.segments();
    if pieces[..6] == [0; 6] && pieces[6] != 0 {
        let [.., a, b, c, d] = address.octets();
        return format!("::{}", Ipv4Addr::new(a, b, c, d));
    }
    address.to_string()
}

/// An IPv6 address as the URL Standard writes it: compressed, in hexadecimal throughout.
pub fn whatwg(address: Ipv6Addr) -> String {
    let pieces = address.segments();
    let (mut start, mut length) = (0, 0);
    let mut at = 0;
    while at < pieces.len() {
        let zeros = pieces[at..].iter().take_while(|piece| **piece == 0).count();
        if zeros > length {
            (start, length) = (at, zeros);
        }
        at += zeros.max(1);
    }
    let hexadecimal = |pieces: &[u16]| {
        let mut text = String::new();
        for (index, piece) in pieces.iter().enumerate() {
            let _ = write!(text, "{}{piece:x}", if index == 0 { "" } else { ":" });
        }
        text
    };
    // A single zero stays.
    if length < 2 {
        return hexadecimal(&pieces);
    }
    format!("{}::{}", hexadecimal(&pieces[..start]), hexadecimal(&pieces[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_is_in_them() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let within = |of: &str, prefix, other: &str| {
            network(address(of), prefix).is_some_and(|network| network.contains(&address(other)))
        };
        assert!(within("10.10.192.1", 18, "10.10.255.255"));
        assert!(!within("10.10.192.1", 18, "10.10.191.255"));
        assert!(within("0.0.0.0", 0, "192.0.2.1") && within("::", 0, "fd00::1"));
        assert!(!within("::", 0, "192.0.2.1"));
        assert_eq!(network(address("10.0.0.0"), 33), None);
        assert_eq!(network(address("10.0.0.0"), 256 + 8), None);
    }

    #[test]
    fn the_c_library_reads_short_addresses() {
        let read = |text| inet_aton(text).map(|address| address.to_string());
        assert_eq!(read("10.96"), Some("10.0.0.96".to_owned()));
        assert_eq!(read("0x0a.010.1"), Some("10.8.0.1".to_owned()));
        assert_eq!(read("1"), Some("0.0.0.1".to_owned()));
        assert_eq!(read("10.0.0.1 x"), Some("10.0.0.1".to_owned()));
        for text in ["", "10.", "10.96.", "1.2.3.256", "256.1", "1.2.3.4.5", "web", "+1", "08", "0x"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn urls_compress_ipv6_addresses() {
        for (address, expected) in [
            ("::", "::"),
            ("::1", "::1"),
            ("fd00:0:0:1:0:0:0:1", "fd00:0:0:1::1"),
            ("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"),
            ("fd00::", "fd00::"),
            ("::ffff:10.0.0.1", "::ffff:a00:1"),
        ] {
            assert_eq!(whatwg(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_c_library_writes_embedded_ipv4_addresses_with_dots() {
        for (address, expected) in [
            ("::FFFF:10.0.0.1", "::ffff:10.0.0.1"),
            ("::a00:1", "::10.0.0.1"),
            ("::1", "::1"),
            ("fd00:0::1", "fd00::1"),
        ] {
            assert_eq!(inet_ntop(address.parse().unwrap()), expected);
        }
    }
}
