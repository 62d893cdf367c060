//! A connection of its own for whoever looks at a sink from outside, such as `tenure verify`.
//! Nothing of the data path uses it, and no claim ever ends it.

use tenure_core::flow::{Reason, spec::Secret, supervisor::Code};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, NoTls};

use super::{
    address::Address,
    session::{drive, spoken, unreachable},
};
use crate::sink::secret;

/// A live connection, encrypted as the sink's own would be. Dropping it closes the socket.
pub struct Visit {
    /// Where statements go.
    pub client: Client,
    address: Address,
    driver: AbortHandle,
}

impl Visit {
    /// Connects to where the secret says, under that name. `settings` is run first. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// The secret is missing here, the server cannot be reached, or it refuses the settings.
    pub async fn open(url: &Secret, application_name: &str, settings: &str) -> Result<Visit, Reason> {
        let address = Address::parse(&secret::resolve(url)?)?;
        let mut config = address.config.clone();
        config.application_name(application_name);
        let connected = match &address.tls {
            Some(tls) => config.connect(tls.clone()).await.map(drive),
            None => config.connect(NoTls).await.map(drive),
        };
        let (client, driver) = connected.map_err(|error| unreachable(&address, &error))?;
        let visit = Visit { client, address, driver };
        visit.client.batch_execute(settings).await.map_err(|error| visit.blame(&error))?;
        Ok(visit)
    }

    /// `host:port/database`, for people.
    pub fn place(&self) -> String {
        self.address.to_string()
    }

    /// An error of a statement, told of this place: the server's refusal, or that it is gone.
    pub fn blame(&self, error: &tokio_postgres::Error) -> Reason {
        match error.as_db_error() {
            Some(_) => Reason::new(Code::SinkRefuses, format!("postgres {}: {}", self.address, spoken(error))),
            None => unreachable(&self.address, error),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
