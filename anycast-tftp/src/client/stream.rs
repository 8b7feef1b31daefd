//! The ends of a transfer: bytes of file on one side, payload on the other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proto::netascii::{Decoder, Encoder};
use crate::proto::packet::Mode;

/// Bytes of text that are read from a source at once.
const TEXT: usize = 8192;

/// Where a get writes to.
pub(super) struct Sink<'a, W: ?Sized> {
    inner: &'a mut W,
    decoder: Option<Decoder>,
    text: Vec<u8>,
    bytes: u64,
}

impl<'a, W: AsyncWrite + Unpin + ?Sized> Sink<'a, W> {
    pub(super) fn new(inner: &'a mut W, mode: Mode) -> Self {
        Self {
            inner,
            decoder: (mode == Mode::Netascii).then(Decoder::default),
            text: Vec::new(),
            bytes: 0,
        }
    }

    /// Bytes of file written.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) async fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        let data = match &mut self.decoder {
            None => payload,
            Some(decoder) => {
                self.text.clear();
                decoder.decode(payload, &mut self.text);
                &self.text
            }
        };
        write_all(self.inner, data).await?;
        self.bytes += data.len() as u64;
        Ok(())
    }

    /// Writes what the translation held back, and flushes.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        if let Some(decoder) = &mut self.decoder {
            self.text.clear();
            decoder.finish(&mut self.text);
            write_all(self.inner, &self.text).await?;
            self.bytes += self.text.len() as u64;
        }
        poll_fn(|context| Pin::new(&mut *self.inner).poll_flush(context)).await
    }
}

async fn write_all<W>(sink: &mut W, mut data: &[u8]) -> io::Result<()>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    while !data.is_empty() {
        let len = poll_fn(|context| Pin::new(&mut *sink).poll_write(context, data)).await?;
        if len == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        data = &data[len..];
    }
    Ok(())
}

/// Where a put reads from.
pub(super) struct Source<'a, R: ?Sized> {
    inner: &'a mut R,
    encoder: Option<Encoder>,
    /// Text that is read and not yet translated.
    text: Vec<u8>,
    block: Vec<u8>,
    bytes: u64,
}

impl<'a, R: AsyncRead + Unpin + ?Sized> Source<'a, R> {
    pub(super) fn new(inner: &'a mut R, mode: Mode) -> Self {
        Self {
            inner,
            encoder: (mode == Mode::Netascii).then(Encoder::default),
            text: Vec::new(),
            block: Vec::new(),
            bytes: 0,
        }
    }

    /// Bytes of file read.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next block; shorter than `len` only at the end.
    pub(super) async fn block(&mut self, len: usize) -> io::Result<&[u8]> {
        self.block.resize(len, 0);
        let mut filled = 0;
        while filled < len {
            let target = &mut self.block[filled..];
            let Some(encoder) = &mut self.encoder else {
                let read = read_some(self.inner, target).await?;
                if read == 0 {
                    break;
                }
                self.bytes += read as u64;
                filled += read;
                continue;
            };
            if self.text.is_empty() && encoder.is_empty() {
                self.text.resize(TEXT, 0);
                let read = read_some(self.inner, &mut self.text).await?;
                self.text.truncate(read);
                self.bytes += read as u64;
                if read == 0 {
                    break;
                }
            }
            let done = encoder.encode(&self.text, target);
            self.text.drain(..done.consumed);
            filled += done.produced;
        }
        Ok(&self.block[..filled])
    }
}

async fn read_some<R>(source: &mut R, target: &mut [u8]) -> io::Result<usize>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut buffer = ReadBuf::new(target);
    poll_fn(|context| Pin::new(&mut *source).poll_read(context, &mut buffer)).await?;
    Ok(buffer.filled().len())
}
