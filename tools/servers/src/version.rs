//! The versions that servers print.

use std::fmt;

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second, 0 when there is none (`16beta1`, `17devel`).
    pub minor: u32,
}

impl Version {
    /// Reads the answer of `postgres --version`: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    #[must_use]
    pub fn of_postgres(printed: &str) -> Option<Self> {
        Self::leading(printed.split_once("(PostgreSQL) ")?.1)
    }

    /// Reads the answer of `redis-server --version`: `Redis server v=7.0.15 sha=…`, or the same of Valkey.
    #[must_use]
    pub fn of_redis(printed: &str) -> Option<Self> {
        Self::leading(printed.split_once(" v=")?.1)
    }

    /// Reads the number that a text begins with: `7.0.15`.
    #[must_use]
    pub fn leading(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (digits, rest) = text.split_at(end);
            Some((digits.parse().ok()?, rest.to_owned()))
        };
        let (major, rest) = number(text)?;
        let minor = rest.strip_prefix('.').and_then(number).map_or(0, |(minor, _)| minor);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    fn version(major: u32, minor: u32) -> Option<Version> {
        Some(Version { major, minor })
    }

    #[test]
    fn postgres_versions() {
        let of = Version::of_postgres;
        assert_eq!(of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), version(15, 18));
        assert_eq!(of("postgres (PostgreSQL) 18.1"), version(18, 1));
        assert_eq!(of("postgres (PostgreSQL) 17beta2"), version(17, 0));
        assert_eq!(of("postgres (PostgreSQL) devel"), None);
        assert_eq!(of("mysqld  Ver 8.0"), None);
    }

    #[test]
    fn redis_versions() {
        let of = Version::of_redis;
        assert_eq!(of("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"), version(7, 0));
        assert_eq!(of("Valkey server v=8.1.3 sha=00000000:1"), version(8, 1));
        assert_eq!(of("Redis server v=255.255.255 sha=1"), version(255, 255));
        assert_eq!(of("nginx version: nginx/1.22"), None);
    }

    #[test]
    fn versions_have_an_order() {
        assert!(version(15, 2) < version(15, 10));
        assert!(version(9, 6) < version(15, 0));
    }
}
