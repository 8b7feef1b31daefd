//! The Unix socket: never open for a moment to whom it is closed.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::AdminError;
use super::config::{AdminAddress, Principal, SocketAccess};
use super::names::{self, Table};

/// Connections that the kernel keeps for an endpoint that is busy; a further one is refused
/// (`EAGAIN`) or waits, as the client has it.
const BACKLOG: i32 = 128;

/// Removes the socket's file when the endpoint goes, unless another has taken its place.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| identity(&m) == self.identity);
        if ours {
            // Nothing can be done about a failure; the next start replaces a dead socket.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Binds a Unix socket with the owner, group and mode that it is to have.
///
/// Linux makes the socket's file with the mode of the socket itself, so that it is set before
/// the bind; and nobody can connect before `listen`, which comes last.
pub(super) async fn bind(
    path: &Path,
    access: &SocketAccess,
) -> Result<(UnixListener, SocketFile), AdminError> {
    remove_dead(path).await?;
    let failed = |source| AdminError::Bind {
        address: AdminAddress::Unix(path.to_owned()),
        source,
    };
    let owner = id(access.owner.as_ref(), Table::Users)?;
    let group = id(access.group.as_ref(), Table::Groups)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    let inode = File::from(OwnedFd::from(socket.try_clone().map_err(failed)?));
    inode
        .set_permissions(Permissions::from_mode(0o600))
        .map_err(failed)?;
    let address = SockAddr::unix(path).map_err(failed)?;
    socket.bind(&address).map_err(failed)?;
    let file = SocketFile {
        identity: fs::symlink_metadata(path)
            .map(|metadata| identity(&metadata))
            .map_err(failed)?,
        path: path.to_owned(),
    };
    let give = || {
        if owner.is_some() || group.is_some() {
            chown(path, owner, group)?;
        }
        fs::set_permissions(path, Permissions::from_mode(access.mode()))
    };
    give().map_err(|source| AdminError::Access {
        path: path.to_owned(),
        source,
    })?;
    socket.listen(BACKLOG).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok((listener, file))
}

fn id(principal: Option<&Principal>, table: Table) -> Result<Option<u32>, AdminError> {
    match principal {
        None => Ok(None),
        Some(Principal::Id(id)) => Ok(Some(*id)),
        Some(Principal::Name(name)) => match names::id_of(table, name) {
            Some(id) => Ok(Some(id)),
            None => Err(AdminError::UnknownPrincipal {
                name: name.clone(),
                table: table.path(),
            }),
        },
    }
}

/// Removes the socket of a process that is gone. A live one, or a file that is no socket, is
/// not touched.
async fn remove_dead(path: &Path) -> Result<(), AdminError> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(AdminError::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| AdminError::Bind {
                address: AdminAddress::Unix(path.to_owned()),
                source,
            }),
        // Bind will fail with the reason.
        Err(_) => Ok(()),
    }
}
