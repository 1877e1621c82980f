//! What version 2 says beside the addresses (section 2.2 of the protocol's text): type, length, value; and the checksum.

use bytes::Bytes;

/// One TLV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlv {
    /// What it is.
    pub kind: TlvKind,
    /// What it says.
    pub value: Bytes,
}

/// The type of a TLV. Any byte may come; these are the ones that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlvKind(pub u8);

impl TlvKind {
    /// A CRC32C of the whole header.
    pub const CRC32C: Self = Self(0x03);
    /// Padding.
    pub const NOOP: Self = Self(0x04);
    /// A name that the first proxy gave to the connection.
    pub const UNIQUE_ID: Self = Self(0x05);
    /// What the proxy knows of the client's TLS.
    pub const SSL: Self = Self(0x20);

    /// Whether it says something about the client that an MTA behind us may want to know: the checksum is of another
    /// header, and padding says nothing.
    pub(super) fn goes_on(self) -> bool {
        self != Self::CRC32C && self != Self::NOOP
    }
}

impl Tlv {
    /// For a client whose TLS we have terminated (section 2.2.6): it has shown no certificate. `version` and `cipher` in
    /// OpenSSL's words, as the protocol's text has them.
    pub fn tls(version: &str, cipher: &str) -> Self {
        /// `PP2_CLIENT_SSL`: the client is under TLS.
        const CLIENT_TLS: u8 = 0x01;
        /// `PP2_SUBTYPE_SSL_VERSION` and `PP2_SUBTYPE_SSL_CIPHER`.
        const VERSION: u8 = 0x21;
        const CIPHER: u8 = 0x23;
        let mut value = vec![CLIENT_TLS];
        // Not zero: no certificate of the client's has been verified.
        value.extend(1_u32.to_be_bytes());
        for (kind, text) in [(VERSION, version), (CIPHER, cipher)] {
            value.push(kind);
            value.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
            value.extend_from_slice(text.as_bytes());
        }
        Self { kind: TlvKind::SSL, value: value.into() }
    }

    /// Type and length.
    pub(super) const HEAD: usize = 3;

    /// How many bytes it takes.
    pub(super) fn wire_length(&self) -> usize {
        Self::HEAD + self.value.len()
    }
}

/// The checksum of a header whose own four bytes of checksum are zero (section 2.2.4): CRC-32C, as in RFC 4960 appendix B.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc: u32, &byte| (crc >> 8) ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

const TABLE: [u32; 256] = {
    // The Castagnoli polynomial, reflected.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // Appendix B.4 there: 32 bytes of zeroes, and of ones; the check value of CRC catalogues.
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
    }
}
