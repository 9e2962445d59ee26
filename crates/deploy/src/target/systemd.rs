//! A unit of systemd (systemd.exec(5), systemd.service(5)): a user of its own, a read-only system, no more rights than a server of
//! models needs.

use crate::{
    Bundle, DeployOptions, Memory, Place, Rendered,
    text::{head, serve_flags},
};
use narthex_base::Result;

pub(super) fn render(bundle: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
    let DeployOptions { name, binary, port, drain_s, shutdown_s, cores, .. } = options;
    let memory = Memory::of(bundle, options);
    let head = head(bundle, options, "A unit of systemd");
    let (reference, binds) = match &options.place {
        Place::Folder(folder) => (
            folder.clone(),
            format!(
                "# The model is all that it sees of a home or of /srv, and it cannot change it.\nBindReadOnlyPaths={folder}\n"
            ),
        ),
        Place::Registry(reference) => (
            format!("oci://{reference}"),
            "# What is pulled is kept there, so that a restart does not pull it again.\n".to_string()
                + "Environment=XDG_CACHE_HOME=%S/%N/cache\n"
                + "# Credentials of the registry, if it asks for some: a copy of Docker's config.json.\n"
                + "Environment=REGISTRY_AUTH_FILE=/etc/narthex/registry.json\n",
        ),
    };
    let keys = match options.keys {
        true => format!(
            "# Keys of clients, one a line (`openssl rand -hex 24`): systemd reads the file and shows it to this unit alone.\n\
             LoadCredential=keys:/etc/narthex/{name}.keys\n"
        ),
        false => "# Nobody is asked for a key: whoever reaches the port may use the model.\n".into(),
    };
    let mut flags = vec!["--host".to_string(), if options.keys { "0.0.0.0" } else { "127.0.0.1" }.into()];
    flags.extend(["--port".into(), port.to_string()]);
    flags.extend(serve_flags(bundle, options));
    flags.extend(["--drain-time".into(), drain_s.to_string(), "--shutdown-timeout".into(), shutdown_s.to_string()]);
    if options.keys {
        flags.extend(["--api-key-file".into(), "%d/keys".into()]);
    }
    let (flags, stop_s, mebibytes) = (flags.join(" "), options.stop_s(), memory.mebibytes());
    let text = format!(
        "{head}\
[Unit]
Description=Narthex serves {name}
After=network-online.target
Wants=network-online.target

[Service]
# The server says when it is ready, once the model is loaded, and when it is about to stop.
Type=notify
ExecStart={binary} serve {reference} {flags}
# A new version behind the same reference: answers under way end on the old one.
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
# Loading takes as long as reading the weights from a slow disk.
TimeoutStartSec=600
# More than the {drain_s} s in which requests are still taken and the {shutdown_s} s that answers under way get.
TimeoutStopSec={stop_s}
KillMode=mixed

# A user that exists only while the server runs.
DynamicUser=yes
StateDirectory={name}
WorkingDirectory=%S/%N
{keys}{binds}
# What it may use. The limit of memory is that of the plan above: beyond it the server ends, and not its neighbours.
MemoryMax={mebibytes}M
CPUQuota={quota}%
LimitNOFILE=65536
TasksMax=512

# What it may not do.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
# Homes are empty folders to it.
ProtectHome=tmpfs
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
# Threads are placed on cores, and large pages asked for.
SystemCallFilter=sched_setaffinity madvise
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
",
        quota = cores * 100,
    );
    Ok(vec![Rendered { path: format!("{name}.service"), text }])
}
