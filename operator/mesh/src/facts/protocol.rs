//! What a Service's port speaks, told as in Istio: by `appProtocol`, else by the prefix of the
//! port's name. <https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/>

use k8s_openapi::api::core::v1::ServicePort;

/// What a port speaks, as far as it matters for routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortProtocol {
    /// HTTP of the version that the client speaks.
    Http,
    /// HTTP/2 towards the pods.
    Http2,
    /// Bytes.
    Tcp,
    /// Not told: HTTP or bytes, found out per connection.
    Detect,
}

/// Ports where the server speaks first by custom (SMTP, MySQL) or where HTTP never runs (DNS,
/// MongoDB): without any other word they are bytes.
const RAW_PORTS: [i32; 4] = [25, 53, 3306, 27017];

impl PortProtocol {
    /// What this port speaks.
    #[must_use]
    pub fn of(port: &ServicePort) -> Self {
        let told = match port.app_protocol.as_deref() {
            // Kubernetes' own words are names as a whole:
            // <https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol>
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Tcp,
            Some(app_protocol) => app_protocol,
            None => port.name.as_deref().unwrap_or_default(),
        };
        let word = told.split('-').next().unwrap_or_default();
        match word.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            // `grpc-web` has the prefix too, and Istio takes it to HTTP/2 upstreams as well.
            "http2" | "grpc" => Self::Http2,
            "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" => Self::Tcp,
            _ if RAW_PORTS.contains(&port.port) => Self::Tcp,
            _ => Self::Detect,
        }
    }

    /// Whether the port has a RouteConfiguration.
    #[must_use]
    pub const fn may_be_http(self) -> bool {
        !matches!(self, Self::Tcp)
    }

    /// Whether the port's listener carries weights of its own.
    #[must_use]
    pub const fn may_be_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Detect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(app_protocol: &str, name: &str, port: i32) -> PortProtocol {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PortProtocol::of(&ServicePort {
            app_protocol: some(app_protocol),
            name: some(name),
            port,
            ..ServicePort::default()
        })
    }

    #[test]
    fn the_app_protocol_wins_over_the_name() {
        assert_eq!(of("kubernetes.io/h2c", "tcp", 80), PortProtocol::Http2);
        assert_eq!(of("kubernetes.io/ws", "tcp", 80), PortProtocol::Http);
        assert_eq!(of("kubernetes.io/wss", "http", 80), PortProtocol::Tcp);
        assert_eq!(of("grpc", "tcp-x", 80), PortProtocol::Http2);
        assert_eq!(of("HTTP", "", 80), PortProtocol::Http);
        assert_eq!(of("mycompany.com/proto", "http", 80), PortProtocol::Detect);
    }

    #[test]
    fn the_prefix_of_the_name_tells() {
        assert_eq!(of("", "http", 80), PortProtocol::Http);
        assert_eq!(of("", "http-metrics", 80), PortProtocol::Http);
        assert_eq!(of("", "http2-api", 80), PortProtocol::Http2);
        assert_eq!(of("", "grpc-web", 80), PortProtocol::Http2);
        assert_eq!(of("", "https-api", 443), PortProtocol::Tcp);
        assert_eq!(of("", "tcp-postgres", 5432), PortProtocol::Tcp);
        assert_eq!(of("", "httpd", 80), PortProtocol::Detect);
        assert_eq!(of("", "web", 80), PortProtocol::Detect);
        assert_eq!(of("", "", 80), PortProtocol::Detect);
    }

    #[test]
    fn an_untold_port_where_servers_speak_first_is_bytes() {
        assert_eq!(of("", "", 3306), PortProtocol::Tcp);
        assert_eq!(of("", "http", 3306), PortProtocol::Http);
    }
}
