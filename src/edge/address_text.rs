//! An address as text, for what is written of every request.

use std::io::{self, Write};
use std::net::IpAddr;

/// Writes `ip` as its `Display` does. Without `fmt`, which costs a request as much as all that the address is looked up in.
///
/// # Errors
/// What `out` says.
pub fn write_address(out: &mut impl Write, ip: IpAddr) -> io::Result<()> {
    let IpAddr::V4(v4) = ip else { return write!(out, "{ip}") };
    for (index, octet) in v4.octets().into_iter().enumerate() {
        let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        let leading = match octet {
            0..10 => 2,
            10..100 => 1,
            100.. => 0,
        };
        if index > 0 {
            out.write_all(b".")?;
        }
        out.write_all(digits.get(leading..).unwrap_or_default())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        for text in ["0.0.0.0", "1.20.255.9", "10.100.99.200", "255.255.255.255", "2001:db8::1", "::"] {
            let mut out = Vec::new();
            write_address(&mut out, text.parse().unwrap()).unwrap();
            assert_eq!(out, text.as_bytes());
        }
    }
}
