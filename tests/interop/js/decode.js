// Decode one Sparkplug payload (base64) by Cirrus Link's library: node decode.js PAYLOAD
const sparkplug = require('sparkplug-payload').get('spBv1.0')
const plain = (_, value) => (value && typeof value.toNumber === 'function' ? value.toNumber() : value)

console.log(JSON.stringify(sparkplug.decodePayload(Buffer.from(process.argv[2], 'base64')), plain))
