// Node-RED without an editor: what HEADGATE_* in the environment names, on loopback.
module.exports = {
  uiHost: '127.0.0.1',
  uiPort: Number(process.env.HEADGATE_PORT),
  userDir: process.env.HEADGATE_USER_DIR,
  flowFile: process.env.HEADGATE_FLOWS,
  httpAdminRoot: false,
  credentialSecret: false,
  telemetry: { enabled: false },
  logging: { console: { level: 'info' } }
}
