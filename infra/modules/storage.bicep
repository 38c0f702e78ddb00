// One account for everything: the product's container and queues, the durable task hub, the function app's package.

param name string
param location string
param machines string[]

resource account 'Microsoft.Storage/storageAccounts@2024-01-01' = {
  name: name
  location: location
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2024-01-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: { enabled: true, days: 7 }
    containerDeleteRetentionPolicy: { enabled: true, days: 7 }
  }
}

resource product 'Microsoft.Storage/storageAccounts/blobServices/containers@2024-01-01' = {
  parent: blobs
  name: 'rlhf'
}

resource deployment 'Microsoft.Storage/storageAccounts/blobServices/containers@2024-01-01' = {
  parent: blobs
  name: 'deployment'
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices@2024-01-01' = {
  parent: account
  name: 'default'
}

// The scaler asks for these before anybody has sent a message.
resource fixedQueues 'Microsoft.Storage/storageAccounts/queueServices/queues@2024-01-01' = [
  for queue in ['rlhf-events', 'rlhf-jobs-poison']: {
    parent: queues
    name: queue
  }
]

resource jobQueues 'Microsoft.Storage/storageAccounts/queueServices/queues@2024-01-01' = [
  for machine in machines: {
    parent: queues
    name: 'rlhf-jobs-${machine}'
  }
]

output name string = account.name
output deploymentContainer string = deployment.name
