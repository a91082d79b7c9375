// An MQTT client that is not ours: MQTT.js, driven by lines of JSON on stdin, saying what it hears on stdout.
//   node client.js URL PROTOCOL [WILL TOPIC, a node's death] [ITS PAYLOAD, as JSON]
//   {"subscribe": FILTER} | {"publish": TOPIC, "payload": BASE64, "retain": true} | {"publish": TOPIC, "sparkplug": {...}}
// It says {"ready": true}, {"done": NUMBER} for each command that was acknowledged, and each message; a Sparkplug
// payload as Cirrus Link's own library decodes it.
const readline = require('readline')
const mqtt = require('mqtt')
const sparkplug = require('sparkplug-payload').get('spBv1.0')

const [url, protocol, willTopic, willPayload] = process.argv.slice(2)
const will = willTopic && { topic: willTopic, payload: Buffer.from(sparkplug.encodePayload(JSON.parse(willPayload))), qos: 1, retain: false }
const client = mqtt.connect(url, { protocolVersion: Number(protocol), clientId: `js${process.pid}`, will, reconnectPeriod: 0 })
const say = (what) => console.log(JSON.stringify(what, (_, v) => (v && typeof v.toNumber === 'function' ? v.toNumber() : v)))

client.on('connect', () => say({ ready: true }))
client.on('error', (error) => { console.error(error); process.exit(1) })
client.on('message', (topic, payload, packet) => {
  const heard = { topic, payload: payload.toString('base64'), qos: packet.qos, retain: packet.retain }
  if (topic.startsWith('spBv1.0/') && !topic.startsWith('spBv1.0/STATE/')) {
    heard.sparkplug = sparkplug.decodePayload(payload)
  }
  say(heard)
})

let count = 0
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const command = JSON.parse(line)
  const number = ++count
  const done = (error) => { if (error) { throw error } say({ done: number }) }
  if (command.subscribe) {
    client.subscribe(command.subscribe, { qos: 1 }, done)
  } else {
    const payload = command.sparkplug ? Buffer.from(sparkplug.encodePayload(command.sparkplug)) : Buffer.from(command.payload, 'base64')
    client.publish(command.publish, payload, { qos: command.qos ?? 1, retain: command.retain ?? false }, done)
  }
}).on('close', () => client.end(false))
