//! Settings: environment variables that a process needs before it can connect to anything.
//!
//! All settings are read and checked at start. All errors are reported together, each with the setting's name, the
//! reason, and an example. Values that may change while a process runs are configuration instead (see
//! [`crate::configuration`]).

use std::{collections::HashMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use http::Uri;

/// Settings of the API and of the workers.
#[derive(Clone)]
pub struct Settings {
    /// `ATRIUM_DATABASE_URL`: PostgreSQL, as `atrium_app`.
    pub database_url: Secret,
    /// `ATRIUM_WATCHER_DATABASE_URL`: the same database, as `atrium_watcher`.
    pub watcher_database_url: Secret,
    /// `ATRIUM_DATABASE_POOLING`: whether `database_url` is the address of a transaction pooler.
    pub database_pooling: Pooling,
    /// `ATRIUM_DATABASE_CONNECTIONS`: the maximum number of connections of this process as `atrium_app`.
    pub database_connections: u32,
    /// `ATRIUM_REDIS_URL`: Redis or Valkey.
    pub redis_url: Secret,
    /// `ATRIUM_ADMIN_LISTEN`: the address for metrics and probes. It must not be public.
    pub admin_listen: SocketAddr,
    /// `ATRIUM_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `ATRIUM_DRAIN_SECONDS`: how long work in progress may take after SIGTERM.
    pub drain: Duration,
    /// `ATRIUM_PROCESS_NAME`: unique among running processes; identifies the process in consumers, leases and reports.
    pub process_name: String,
}

/// Settings of the API only.
#[derive(Clone)]
pub struct ApiSettings {
    /// `ATRIUM_LISTEN`: the address of the public listener.
    pub listen: SocketAddr,
    /// `ATRIUM_PUBLIC_URL`: the address that browsers use; the issuer of tokens, and the origin of cookies.
    pub public_url: PublicUrl,
    /// `ATRIUM_ALLOWED_ORIGINS`: other origins whose scripts may call the API.
    pub allowed_origins: Vec<String>,
    /// `ATRIUM_SIGNING_KEYS_DIR`: a folder of `<kid>.pem` files, Ed25519 in PKCS#8. Reread while the process runs.
    pub signing_keys_dir: PathBuf,
    /// `ATRIUM_TRUSTED_PROXY_HOPS`: how many proxies are in front of the API; with 0, `X-Forwarded-For` is ignored.
    pub trusted_proxy_hops: usize,
}

/// Settings of the workers only.
#[derive(Clone)]
pub struct WorkerSettings {
    /// `ATRIUM_RELAY_DATABASE_URL`: the same database, as `atrium_relay`.
    pub relay_database_url: Secret,
    /// `ATRIUM_ISOLATION`: what isolates organizations in the cluster.
    pub isolation: Isolation,
}

/// Settings of `atrium-ctl`.
pub struct CtlSettings {
    /// `ATRIUM_DATABASE_URL`: PostgreSQL, as `atrium_app`.
    pub database_url: Secret,
    /// `ATRIUM_DATABASE_POOLING`: whether `database_url` is the address of a transaction pooler.
    pub database_pooling: Pooling,
}

/// Additional settings of `atrium-ctl dead-letters`.
pub struct DeadLettersSettings {
    /// `ATRIUM_RELAY_DATABASE_URL`: the same database, as `atrium_relay`.
    pub relay_database_url: Secret,
    /// `ATRIUM_REDIS_URL`: Redis or Valkey.
    pub redis_url: Secret,
}

/// What isolates organizations from each other in the cluster, in addition to the tenant wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// No additional isolation.
    None,
    /// A Kubernetes namespace for each organization.
    Kubernetes,
}

/// How the connections of a process map to server connections of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Each connection uses one server connection for its whole lifetime.
    Session,
    /// A transaction pooler assigns any free server connection to each transaction.
    Transaction,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// Plain text, for people at a terminal.
    Text,
}

/// A value that must not be printed because it contains a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Scheme, host and port under which browsers reach the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The origin, as a browser sends it in `Origin`: no path, no trailing slash.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.0
    }

    /// Whether browsers reach the API over TLS, so that cookies can be `Secure`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

/// All settings that are missing or invalid, one text for each.
#[derive(Debug, thiserror::Error)]
#[error("the settings need attention:{}", .0.iter().map(|error| format!("\n  {error}")).collect::<String>())]
pub struct SettingsError(Vec<String>);

/// Reads settings one by one and collects all errors, so that one start reports all of them.
pub struct Reader {
    variables: HashMap<String, String>,
    errors: Vec<String>,
}

impl Reader {
    /// A reader of the process's environment.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(std::env::vars_os().filter_map(|(name, value)| {
            // No setting has a name that is not UTF-8. A value that is not UTF-8 is replaced by one that every setting
            // rejects.
            Some((name.into_string().ok()?, value.into_string().unwrap_or_else(|_| "\u{fffd}".to_owned())))
        }))
    }

    /// A reader of the given variables.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { variables: variables.into_iter().collect(), errors: Vec::new() }
    }

    /// Reads the settings that the API and the workers share. The default process name begins with `kind`.
    pub fn common(&mut self, kind: &str) -> Option<Settings> {
        let database_url = self.database_url();
        let watcher_database_url = self.postgres_url("ATRIUM_WATCHER_DATABASE_URL", "atrium_watcher");
        let database_pooling = self.database_pooling();
        let redis_url = self.redis_url();
        let connections = self.optional("ATRIUM_DATABASE_CONNECTIONS", "10", |text| match text.parse() {
            Ok(connections @ 2..=1000) => Ok(connections),
            _ => Err("must be a whole number from 2 to 1000".to_owned()),
        });
        let admin_listen = self.optional("ATRIUM_ADMIN_LISTEN", "127.0.0.1:9090", parse_address);
        let log_format = self.optional("ATRIUM_LOG_FORMAT", "json", |text| match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("must be json or text".to_owned()),
        });
        let drain = self.optional("ATRIUM_DRAIN_SECONDS", "20", |text| match text.parse() {
            Ok(seconds @ 1..=3600) => Ok(Duration::from_secs(seconds)),
            _ => Err("must be a whole number of seconds from 1 to 3600".to_owned()),
        });
        let unique = format!("{kind}-{}-{:06x}", std::process::id(), rand::random_range(0..0x100_0000));
        let process_name = self.optional("ATRIUM_PROCESS_NAME", &unique, |text| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if (1..=100).contains(&text.len()) && text.chars().all(fits) {
                Ok(text.to_owned())
            } else {
                Err("must be 1 to 100 letters, digits, '-', '_' or '.'".to_owned())
            }
        });
        Some(Settings {
            database_url: database_url?,
            watcher_database_url: watcher_database_url?,
            database_pooling: database_pooling?,
            database_connections: connections?,
            redis_url: redis_url?,
            admin_listen: admin_listen?,
            log_format: log_format?,
            drain: drain?,
            process_name: process_name?,
        })
    }

    /// Reads the settings of the API only.
    pub fn api(&mut self) -> Option<ApiSettings> {
        let listen = self.optional("ATRIUM_LISTEN", "127.0.0.1:8080", parse_address);
        let public_url = self
            .optional("ATRIUM_PUBLIC_URL", "http://127.0.0.1:8080", |text| parse_origin(text).map(PublicUrl));
        let allowed_origins = self.optional("ATRIUM_ALLOWED_ORIGINS", "", |text| {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse_origin).collect()
        });
        let signing_keys_dir = self.required("ATRIUM_SIGNING_KEYS_DIR", "/etc/atrium/signing-keys", |text| {
            let path = PathBuf::from(text);
            if path.is_dir() { Ok(path) } else { Err("is not a folder that can be read".to_owned()) }
        });
        let trusted_proxy_hops = self.optional("ATRIUM_TRUSTED_PROXY_HOPS", "0", |text| match text.parse() {
            Ok(hops @ 0..=10) => Ok(hops),
            _ => Err("must be a whole number from 0 to 10".to_owned()),
        });
        Some(ApiSettings {
            listen: listen?,
            public_url: public_url?,
            allowed_origins: allowed_origins?,
            signing_keys_dir: signing_keys_dir?,
            trusted_proxy_hops: trusted_proxy_hops?,
        })
    }

    /// Reads the settings of the workers only.
    pub fn workers(&mut self) -> Option<WorkerSettings> {
        let relay_database_url = self.relay_database_url();
        let isolation = self.optional("ATRIUM_ISOLATION", "none", |text| match text {
            "none" => Ok(Isolation::None),
            "kubernetes" => Ok(Isolation::Kubernetes),
            _ => Err("must be none or kubernetes".to_owned()),
        });
        Some(WorkerSettings { relay_database_url: relay_database_url?, isolation: isolation? })
    }

    /// Reads the settings of `atrium-ctl`.
    pub fn ctl(&mut self) -> Option<CtlSettings> {
        let database_url = self.database_url();
        let database_pooling = self.database_pooling();
        Some(CtlSettings { database_url: database_url?, database_pooling: database_pooling? })
    }

    /// Reads the additional settings of `atrium-ctl dead-letters`.
    pub fn dead_letters(&mut self) -> Option<DeadLettersSettings> {
        let relay_database_url = self.relay_database_url();
        let redis_url = self.redis_url();
        Some(DeadLettersSettings { relay_database_url: relay_database_url?, redis_url: redis_url? })
    }

    /// Returns the settings, or all errors in them.
    ///
    /// # Errors
    /// When any setting is missing or invalid.
    pub fn finish<T>(self, settings: Option<T>) -> Result<T, SettingsError> {
        match settings {
            Some(settings) if self.errors.is_empty() => Ok(settings),
            _ => Err(SettingsError(self.errors)),
        }
    }

    fn database_url(&mut self) -> Option<Secret> {
        self.postgres_url("ATRIUM_DATABASE_URL", "atrium_app")
    }

    fn relay_database_url(&mut self) -> Option<Secret> {
        self.postgres_url("ATRIUM_RELAY_DATABASE_URL", "atrium_relay")
    }

    fn redis_url(&mut self) -> Option<Secret> {
        self.required("ATRIUM_REDIS_URL", "redis://127.0.0.1:6379", |text| {
            redis::Client::open(text).map(|_| Secret(text.to_owned())).map_err(|error| error.to_string())
        })
    }

    fn postgres_url(&mut self, name: &str, role: &str) -> Option<Secret> {
        let example = format!("postgres://{role}:secret@127.0.0.1:5432/atrium");
        self.required(name, &example, |text| {
            // sqlx accepts any scheme.
            let scheme = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
            match text.parse::<sqlx::postgres::PgConnectOptions>() {
                Ok(_) if scheme => Ok(Secret(text.to_owned())),
                _ => Err("is not an address of PostgreSQL".to_owned()),
            }
        })
    }

    fn database_pooling(&mut self) -> Option<Pooling> {
        self.optional("ATRIUM_DATABASE_POOLING", "session", |text| match text {
            "session" => Ok(Pooling::Session),
            "transaction" => Ok(Pooling::Transaction),
            _ => Err("must be session or transaction".to_owned()),
        })
    }

    fn required<T>(
        &mut self,
        name: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.variables.get(name).filter(|text| !text.is_empty()) {
            Some(text) => match parse(text) {
                Ok(value) => Some(value),
                Err(reason) => self.add_error(name, &reason, example),
            },
            None => self.add_error(name, "is not set", example),
        }
    }

    fn optional<T>(
        &mut self,
        name: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.variables.get(name).filter(|text| !text.is_empty()).map_or(default, String::as_str);
        match parse(text) {
            Ok(value) => Some(value),
            Err(reason) => self.add_error(name, &reason, default),
        }
    }

    fn add_error<T>(&mut self, name: &str, reason: &str, example: &str) -> Option<T> {
        // The message does not contain the value, which may contain a password.
        self.errors.push(format!("{name} {reason}; for example {name}={example}"));
        None
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address with a port".to_owned())
}

fn parse_origin(text: &str) -> Result<String, String> {
    let invalid = || "must be http:// or https:// with a host, without a path".to_owned();
    let uri: Uri = text.parse().map_err(|_| invalid())?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or_else(invalid)?;
    let authority =
        uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(invalid)?;
    if !["", "/"].contains(&uri.path()) || uri.query().is_some() {
        return Err(invalid());
    }
    // Browsers send the origin in lower case and without the scheme's default port.
    let authority = authority.as_str().to_ascii_lowercase();
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    Ok(format!("{scheme}://{}", authority.strip_suffix(default_port).unwrap_or(&authority)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(variables: &[(&str, &str)]) -> Reader {
        Reader::from_variables(
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn all_errors_are_reported_together_with_an_example() {
        let mut reader = reader(&[("ATRIUM_DATABASE_URL", "mysql://x"), ("ATRIUM_DRAIN_SECONDS", "soon")]);
        let settings = reader.common("api");
        let error = reader.finish(settings).err().map(|error| error.to_string()).unwrap_or_default();
        for part in [
            "ATRIUM_DATABASE_URL is not an address of PostgreSQL; for example ATRIUM_DATABASE_URL=postgres://",
            "ATRIUM_WATCHER_DATABASE_URL is not set",
            "ATRIUM_REDIS_URL is not set",
            "ATRIUM_DRAIN_SECONDS must be a whole number of seconds from 1 to 3600",
        ] {
            assert!(error.contains(part), "{part:?} is missing in:\n{error}");
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret("postgres://a:hunter2@b/c".to_owned())), "…");
    }

    #[test]
    fn the_public_url_is_an_origin() {
        assert_eq!(parse_origin("https://atrium.example/"), Ok("https://atrium.example".to_owned()));
        for (text, origin) in [
            ("HTTPS://Atrium.Example:443", "https://atrium.example"),
            ("http://atrium.example:80/", "http://atrium.example"),
            ("http://atrium.example:443", "http://atrium.example:443"),
            ("https://atrium.example:8443", "https://atrium.example:8443"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[::80]", "http://[::80]"),
        ] {
            assert_eq!(parse_origin(text).as_deref(), Ok(origin));
        }
        for invalid in ["atrium.example", "ftp://x", "https://a/b", "https://u@a", "https://a?b"] {
            assert!(parse_origin(invalid).is_err(), "{invalid}");
        }
    }
}
