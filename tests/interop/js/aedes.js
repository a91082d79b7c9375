// An aedes broker on 127.0.0.1: node aedes.js PORT
const net = require('net')
const aedes = require('aedes')({ concurrency: 1000 })

net.createServer(aedes.handle).listen(Number(process.argv[2]), '127.0.0.1')
