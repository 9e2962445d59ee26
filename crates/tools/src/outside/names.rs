//! Names become addresses here, once for each connection, and every address is screened: what is connected to is what
//! was looked at, so that a name server which changes its answer changes nothing. Knows no URLs.

use super::rules::Screen;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Finds the addresses of a name.
pub trait Names: Send + Sync {
    /// All addresses of a name, as they are at this moment.
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's own way of finding them.
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// A connection that is not made, and why: for the model.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Names whose addresses are screened, or for [`super::rules::Way::Exempt`] taken as they are.
pub struct ScreenedNames {
    /// Who finds the addresses.
    pub names: Arc<dyn Names>,
    /// Without it, every address passes.
    pub screen: Option<Screen>,
}

impl Resolve for ScreenedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let screen = self.screen;
        let found = self.names.addresses(name.as_str().into());
        Box::pin(async move {
            let addresses = found.await?;
            // One address that is not public is reason enough: nobody publishes both for an honest purpose.
            if let Some(what) = screen.and_then(|screen| addresses.iter().find_map(|address| screen(*address))) {
                let message = format!(
                    "`{}` resolves to an address {what}, which is not asked; the operator can allow it with `allow_hosts`",
                    name.as_str()
                );
                return Err(Box::new(Refused(message)) as _);
            }
            let addresses: Addrs =
                Box::new(addresses.into_iter().take(ADDRESSES_MAX).map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
