/**
 * Completes package-lock.json: `npm run lock`.
 *
 * Some registries mirror only the platforms that they serve. npm then writes a lock without the other platforms'
 * optional packages and later refuses its own lock in `npm ci`. Their versions are pinned exactly by the package that
 * wants them, so they are added here; what is missing for them is only the checksum, which npm adds where it can.
 */
import { readFileSync, writeFileSync } from "node:fs";

const SYSTEMS = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"];
const PROCESSORS = ["arm", "arm64", "ia32", "loong64", "mips64el", "ppc64", "riscv64", "s390x", "x64"];
const FILE = new URL("package-lock.json", import.meta.url);

const lock = JSON.parse(readFileSync(FILE, "utf8"));
let added = 0;
for (const parent of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    const path = `node_modules/${name}`;
    const parts = name.split("/").pop().split("-");
    const os = parts.filter((part) => SYSTEMS.includes(part));
    if (lock.packages[path] || os.length === 0 || !/^\d/.test(version)) continue;
    const cpu = parts.filter((part) => PROCESSORS.includes(part));
    const libc = parts.includes("musl") ? ["musl"] : parts.includes("gnu") ? ["glibc"] : [];
    lock.packages[path] = { version, cpu, dev: true, ...(libc.length > 0 && { libc }), optional: true, os };
    added += 1;
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(FILE, `${JSON.stringify(lock, null, 2)}\n`);
process.stdout.write(`${added} packages of other platforms added\n`);
