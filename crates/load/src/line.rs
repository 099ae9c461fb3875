//! A connection, and what every call over it says.

use tonic::Request;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::Channel;

/// A connection with a node. Several clients share one; clones are the same.
#[derive(Clone, Debug)]
pub struct Line {
    pub(crate) channel: Channel,
    header: Option<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
}

impl Line {
    /// One whose calls say nothing more.
    pub fn new(channel: Channel) -> Self {
        Self { channel, header: None }
    }

    /// One whose calls carry a header. `None` if it cannot be one.
    pub fn with_header(channel: Channel, name: &'static str, value: &str) -> Option<Self> {
        let header = (MetadataKey::from_static(name), MetadataValue::try_from(value).ok()?);
        Some(Self { channel, header: Some(header) })
    }

    /// A call's message with what every call says.
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some((name, value)) = &self.header {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        request
    }
}
