//! The passes page by page: neither the daemon nor the command ever holds all of them.

use crate::control::api_pass::{ListRequest, Page};
use crate::control::{Client, query};

/// The passes that a request wants.
pub(super) struct Pages<'a> {
    client: &'a Client,
    request: ListRequest,
    done: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn new(client: &'a Client, request: ListRequest) -> Self {
        Self { client, request, done: false }
    }

    /// The next page, which may be empty; `None`: there are no more.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Page>> {
        if self.done {
            return Ok(None);
        }
        let page: Page = self.client.get(&format!("/v1/passes?{}", query(&self.request)?)).await?;
        self.request.after = page.next;
        self.done = page.next.is_none();
        Ok(Some(page))
    }
}
