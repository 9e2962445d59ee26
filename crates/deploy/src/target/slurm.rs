//! Batch scripts of Slurm: one that serves until its time is up, and one that trains a project over its tasks.

use crate::{
    Bundle, DeployOptions, Memory, Place, Rendered,
    text::{head, serve_flags},
};
use narthex_base::Result;

pub(super) fn render(bundle: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
    let DeployOptions { name, binary, port, cores, drain_s, shutdown_s, .. } = options;
    let memory = Memory::of(bundle, options).mebibytes();
    let reference = match &options.place {
        Place::Folder(folder) => folder.clone(),
        Place::Registry(reference) => format!("oci://{reference}"),
    };
    let mut flags = vec!["--host 0.0.0.0".to_string(), format!("--port {port}")];
    flags.push(serve_flags(bundle, options).join(" "));
    flags.push(format!("--drain-time {drain_s} --shutdown-timeout {shutdown_s}"));
    let keys = match options.keys {
        true => {
            flags.push("--api-key-file \"$HOME/.narthex-keys\"".into());
            "# Keys of clients, one a line, that nobody else can read: (umask 077; openssl rand -hex 24 > ~/.narthex-keys)\n"
        }
        false => "# Nobody is asked for a key: whoever reaches the node may use the model.\n",
    };
    let (flags, stop_s) = (flags.join(" \\\n    "), options.stop_s());
    let serve_head = head(bundle, options, "A job of Slurm that serves");
    let serve = format!(
        "#!/bin/bash
{serve_head}#SBATCH --job-name={name}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cores}
#SBATCH --mem={memory}M
#SBATCH --time=08:00:00
# So long before the end, the server is told, and answers under way end.
#SBATCH --signal=TERM@{stop_s}
#SBATCH --output={name}-%j.log
set -euo pipefail
{keys}
echo \"serving at http://$(hostname -f):{port}/v1\"
# srun passes the signal on to the server itself.
exec srun --kill-on-bad-exit=1 {binary} serve {reference} \\
    {flags}
"
    );
    let mut files = vec![Rendered { path: "serve.sbatch".into(), text: serve }];
    if let Some(project) = &options.project {
        let head = head(bundle, options, "A job of Slurm that trains");
        let ranks = options.replicas;
        let train = format!(
            "#!/bin/bash
{head}#SBATCH --job-name={name}-train
# A rank a node. The result has the same bytes whatever the number of ranks.
#SBATCH --nodes={ranks}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cores}
#SBATCH --time=1-00:00:00
# The step saves where it is; the same job goes on from there.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output={name}-train-%j.log
set -euo pipefail
# The folder must lie on a disk that all nodes share. Ranks meet at the job's first node.
exec srun --kill-on-bad-exit=1 {binary} run {project}
"
        );
        files.push(Rendered { path: "train.sbatch".into(), text: train });
    }
    Ok(files)
}
