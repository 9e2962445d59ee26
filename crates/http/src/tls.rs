//! A certificate and its key, as a web server reads them.

use narthex_base::{Error, Result};
use std::{path::Path, sync::Arc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

/// PEM files of a server's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those that vouch for it.
    pub certificates: std::path::PathBuf,
    /// The private key, not encrypted.
    pub key: std::path::PathBuf,
}

impl TlsFiles {
    /// What TLS connections are accepted with: versions 1.2 and 1.3, HTTP/1.1.
    ///
    /// # Errors
    /// If a file cannot be read, holds something else, or the key belongs to another certificate.
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor> {
        let certificates: Vec<CertificateDer> = CertificateDer::pem_file_iter(&self.certificates)
            .and_then(Iterator::collect)
            .map_err(|error| unreadable(&self.certificates, "certificate", error))?;
        if certificates.is_empty() {
            return Err(unreadable(&self.certificates, "certificate", pem::Error::NoItemsFound));
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, "private key", error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Error::internal("TLS has no cipher suites").cause(error))?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|error| {
                Error::input("this key and this certificate do not work together")
                    .at(self.key.display(), None)
                    .cause(error)
                    .help(format!("take the key that {} was made with", self.certificates.display()))
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn unreadable(path: &Path, what: &str, error: pem::Error) -> Error {
    match error {
        pem::Error::Io(error) => Error::io(&format!("cannot read the {what}"), path, error),
        error => Error::input(format!("there is no {what} in this file"))
            .at(path.display(), None)
            .cause(format!("{error:?}"))
            .help("it has to be a PEM file, with lines like `-----BEGIN …-----`; keys must not be encrypted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        options::HttpOptions,
        server::{bind, serve},
    };
    use axum::{Router, routing::get};
    use std::{
        io::{Read, Write},
        path::PathBuf,
    };
    use tokio::sync::oneshot;
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, Stream, pki_types::ServerName};

    /// Made with `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=localhost
    /// -addext subjectAltName=DNS:localhost`.
    fn files() -> TlsFiles {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls"));
        TlsFiles { certificates: folder.join("localhost.crt"), key: folder.join("localhost.key") }
    }

    #[test]
    fn answers_over_tls_and_not_without() {
        let routes = Router::new().route("/health", get(async || "well"));
        let options = HttpOptions { port: 0, tls: Some(files()), ..HttpOptions::default() };
        let bound = bind(&options).unwrap();
        let address = bound.address();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || serve(bound, routes, &options, |_| false, async { _ = stopped.await }));

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(files().certificates).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        write!(stream, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("well"), "{text}");

        let mut plain = std::net::TcpStream::connect(address).unwrap();
        write!(plain, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        _ = plain.read_to_end(&mut bytes);
        assert!(!bytes.starts_with(b"HTTP/1.1 200"), "{bytes:?}");
        stop.send(()).unwrap();
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn wrong_files_are_explained() {
        let TlsFiles { certificates, key } = files();
        let missing = TlsFiles { certificates: "nowhere.crt".into(), key: key.clone() }.acceptor().err().unwrap();
        assert!(missing.to_string().contains("nowhere.crt"), "{missing}");
        let swapped = TlsFiles { certificates: key.clone(), key: certificates.clone() }.acceptor().err().unwrap();
        assert_eq!(swapped.what(), "there is no certificate in this file");
        let no_key =
            TlsFiles { certificates: certificates.clone(), key: certificates.clone() }.acceptor().err().unwrap();
        assert_eq!(no_key.what(), "there is no private key in this file");
        let other = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/other.key"));
        let other = TlsFiles { certificates, key: other }.acceptor().err().unwrap();
        assert_eq!(other.what(), "this key and this certificate do not work together");
    }
}
